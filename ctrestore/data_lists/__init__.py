"""Data lists: the scans for training, validation and test, as MONAI datalist JSON with relative POSIX paths.

The basic rule: a subject, with all its sessions, runs and tracers, is in one section only.
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
    """``build_data_list``, on request: it needs scipy and nibabel, while the names of the tasks need nothing."""
    if name != "build_data_list":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ctrestore.data_lists.building import build_data_list

    return build_data_list
