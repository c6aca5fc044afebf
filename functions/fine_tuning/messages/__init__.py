"""The e-mails, one pure function a kind.

A subject is printable ASCII of at most 100 characters (SNS refuses others); a body is plain text of at most 60 lines,
to be read on a phone: short sentences, each address on a line of its own, the next command to type. Links are S3
addresses and console pages, not presigned addresses, which die with the role's session.
"""

from fine_tuning.messages.dataset import rejected, repeated
from fine_tuning.messages.ending import FAILURES, completed, failed, stopped
from fine_tuning.messages.image import image_built, image_failed, image_missing
from fine_tuning.messages.message import Message
from fine_tuning.messages.training import progress, started, unseen, waiting

__all__ = [
    "FAILURES",
    "Message",
    "completed",
    "failed",
    "image_built",
    "image_failed",
    "image_missing",
    "progress",
    "rejected",
    "repeated",
    "started",
    "stopped",
    "unseen",
    "waiting",
]
