"""Data lists: which scan is trained on, validated on and tested on, as MONAI datalist JSON with relative POSIX paths.

The rule behind everything here: a subject, with all its sessions, runs and tracers, sits in one section only.
"""

from ctrestore.data_lists.building import build_data_list
from ctrestore.data_lists.files import check_data_list, check_target, read_data_list, write_data_list
from ctrestore.data_lists.splitting import SECTIONS
from ctrestore.data_lists.tasks import TASKS

__all__ = [
    "SECTIONS",
    "TASKS",
    "build_data_list",
    "check_data_list",
    "check_target",
    "read_data_list",
    "write_data_list",
]
