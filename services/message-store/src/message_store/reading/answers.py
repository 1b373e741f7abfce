"""HTTP answers that contain bodies of messages: numbers in a body are written exactly as the sender wrote them."""

from fastapi.responses import JSONResponse
from pydantic import BaseModel
from tlim_protocol.lenient import write_json


class PageAnswer(JSONResponse):
    """A page as JSON. FastAPI's own writing would read each number as a float."""

    def render(self, content: BaseModel) -> bytes:
        """Return the page under its wire names."""
        return write_json(content.model_dump(by_alias=True)).encode()
