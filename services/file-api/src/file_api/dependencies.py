"""What the doors ask for."""

from typing import Annotated

from fastapi import Depends, Query, Request
from tlim_runtime.auth import CurrentUser, caller, current_user, token_user

from file_api.access import Access
from file_api.service import FileService


def _service(request: Request) -> FileService:
    service: FileService = request.app.state.files
    return service


def _access(request: Request) -> Access:
    access: Access = request.app.state.access
    return access


def _legacy_user(
    request: Request,
    token: Annotated[CurrentUser | None, Depends(token_user)],
    request_user: Annotated[str | None, Query(description="under TLIM_TRUST_REQUEST_USER: who calls")] = None,
    user_id: Annotated[str | None, Query(description="the same")] = None,
) -> CurrentUser:
    return caller(token, request_user or user_id, request.app.state.settings)


FilesDep = Annotated[FileService, Depends(_service)]
AccessDep = Annotated[Access, Depends(_access)]
CurrentUserDep = Annotated[CurrentUser, Depends(current_user)]
LegacyUserDep = Annotated[CurrentUser, Depends(_legacy_user)]
