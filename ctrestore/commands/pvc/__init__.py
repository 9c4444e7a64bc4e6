"""The commands ``ctrestore pvc`` and ``petpvc``: classical partial volume correction of PET files."""

from ctrestore.commands.pvc.arguments import add_pvc, petpvc_arguments

__all__ = ["add_pvc", "petpvc_arguments"]
