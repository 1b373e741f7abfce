"""What endpoints ask for, as annotated aliases."""

from typing import Annotated

from fastapi import Depends, Request
from tlim_runtime.auth import CurrentUser, admin_user

from xmpp_bridge.system_service import AdminCaller, SystemSender
from xmpp_bridge.token_service import TokenDesk
from xmpp_bridge.tokens import TokenIssuer


async def _token_desk(request: Request) -> TokenDesk:
    desk: TokenDesk = request.app.state.token_desk
    return desk


async def _token_issuer(request: Request) -> TokenIssuer:
    issuer: TokenIssuer = request.app.state.token_issuer
    return issuer


async def _system_sender(request: Request) -> SystemSender:
    sender: SystemSender = request.app.state.system_sender
    return sender


async def _admin(request: Request, user: Annotated[CurrentUser, Depends(admin_user)]) -> AdminCaller:
    return AdminCaller(user.user_id, request.state.request_id)


async def _client_address(request: Request) -> str:
    # This is the client's address: uvicorn takes it from X-Forwarded-For when the request comes from a gateway in
    # FORWARDED_ALLOW_IPS (127.0.0.1 by default).
    return request.client.host if request.client is not None else "unknown"


TokenDeskDep = Annotated[TokenDesk, Depends(_token_desk)]
TokenIssuerDep = Annotated[TokenIssuer, Depends(_token_issuer)]
ClientAddress = Annotated[str, Depends(_client_address)]
SystemSenderDep = Annotated[SystemSender, Depends(_system_sender)]
AdminDep = Annotated[AdminCaller, Depends(_admin)]
