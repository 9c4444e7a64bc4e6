"""Data lists: which scan is trained on, validated on and tested on, as MONAI datalist JSON with relative POSIX paths.

The rule behind everything here: a subject, with all its sessions, runs and tracers, sits in one section only.
"""

from typing import TYPE_CHECKING, Any

from ctrestore.data_lists.files import check_data_list, check_target, read_data_list, write_data_list
from ctrestore.data_lists.splitting import SECTIONS
from ctrestore.data_lists.tasks import TASKS

if TYPE_CHECKING:
    from ctrestore.data_lists.building import build_data_list

__all__ = [
    "SECTIONS",
    "TASKS",
    "build_data_list",
    "check_data_list",
    "check_target",
    "read_data_list",
    "write_data_list",
]


def __getattr__(name: str) -> Any:
    """``build_data_list``, when it is asked for: it needs scipy and nibabel, and the names of the tasks nothing."""
    if name != "build_data_list":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ctrestore.data_lists.building import build_data_list

    return build_data_list
