"""Templates: how a conversation becomes tokens, and which of them are trained."""

from __future__ import annotations

from mftrun.data.templates.base import ConversationEncoder, Template
from mftrun.data.templates.document import Document
from mftrun.data.templates.model import ModelTemplate
from mftrun.data.templates.roles import RoleTemplate
from mftrun.data.templates.tools import ToolText

__all__ = ["ConversationEncoder", "Document", "ModelTemplate", "RoleTemplate", "Template", "ToolText"]
