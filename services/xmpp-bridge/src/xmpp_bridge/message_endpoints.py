"""HTTP door for other systems: a message in the name of a system user; scope `admin`."""

from fastapi import APIRouter
from tlim_protocol.errors import ErrorCode
from tlim_runtime.auth import TokenFirstRoute
from tlim_runtime.errors import problem_responses
from tlim_runtime.logging import get_logger

from xmpp_bridge.dependencies import AdminDep, SystemSenderDep
from xmpp_bridge.schemas import SentMessage, SystemMessage

logger = get_logger(__name__)

MAX_BODY_BYTES = 1024 * 1024
"""The largest body of a request. A message may have 256 KiB, and a JSON writer may escape its characters: some of them
then take six times as many bytes."""

router = APIRouter(tags=["messages"], route_class=TokenFirstRoute, max_body_size=MAX_BODY_BYTES)

_NEVER = {  # these cannot occur over HTTP, or for a system user
    ErrorCode.SESSION_TYPE_INVALID,
    ErrorCode.SESSION_NAME_EMPTY,
    ErrorCode.SESSION_USER_UNKNOWN,
    ErrorCode.FROM_NOT_SENDER,
    ErrorCode.UNSUPPORTED,
}


@router.post(
    "/v1/messages",
    status_code=201,
    responses=problem_responses(*(code for code in ErrorCode if code not in _NEVER), statuses=(401, 413)),
)
async def send_message(admin: AdminDep, sender: SystemSenderDep, message: SystemMessage) -> SentMessage:
    """Send a message as a system user, and answer when it is stored; after a 503, send it again with its msg_id."""
    stored = await sender.send(admin, message.draft())
    logger.info("sent for a system user", by=admin.user_id, sender=message.msg_from, msg_id=stored.envelope.msg_id)
    return SentMessage.of(stored)
