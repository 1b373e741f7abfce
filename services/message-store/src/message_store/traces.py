"""The spans of the batch in hand: each message has two in its own trace, and the batch has one with links to them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tlim_protocol.events import OutEvent, RejectedMessage, SessionEvent
from tlim_runtime.consumer import Incoming, Poison
from tlim_runtime.tracing import NO_HEADERS, NO_SPAN, Headers, Stage, TraceSpan, Tracing, in_hand, logged

from message_store.notices import notice_id
from message_store.values import Item

_Key = tuple[str, str]  # in whose name, and msg_id


class BatchTraces:
    """Follows the batch in hand: one is stored and published at a time. Without tracing this does nothing."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._batch = NO_SPAN
        self._storing: list[tuple[_Key, TraceSpan]] = []
        self._publishing: dict[_Key, TraceSpan] = {}

    @contextmanager
    def of(self, batch: Sequence[Incoming], read: Sequence[Item | Poison]) -> Iterator[None]:
        """Follow a batch while entered; `read` is what each message of it holds.

        Lines of the log have the trace of the batch meanwhile, which links to the traces of its messages. What other
        services are asked meanwhile is told in the traces of the messages.
        """
        if not self._tracing.is_on:
            yield
            return
        self._begin(batch, read)
        try:
            with logged(self._batch), in_hand([span.traceparent for _, span in self._storing]):
                yield
        except BaseException as error:
            self._end(type(error).__name__)
            raise
        self._end("")

    def committed(self, items: Sequence[Item]) -> None:
        """Note that these items of the batch are committed, and are published now."""
        if not self._storing:
            return
        keys = {_named_in(item)[0] for item in items}
        for key, span in self._storing:
            if key in keys:
                span.end()
                self._publishing[key] = self._tracing.begin(Stage.PUBLISH, span.traceparent, batch=self._batch)
                self._publishing[key].note(msg_id=key[1])
        self._storing = [one for one in self._storing if one[0] not in keys]

    def published(self) -> None:
        """Note that what is committed so far is published."""
        for span in self._publishing.values():
            span.end()
        self._publishing = {}

    def headers_of(self, event: OutEvent) -> Headers:
        """Return the headers with which an event belongs to the trace of the message that it comes of."""
        return self._publishing.get(_key_of(event), NO_SPAN).headers if self._publishing else NO_HEADERS

    def _begin(self, batch: Sequence[Incoming], read: Sequence[Item | Poison]) -> None:
        self._batch = self._tracing.batch(Stage.STORE, (message.traceparent for message in batch))
        for message, item in zip(batch, read, strict=True):
            if message.traceparent is not None and not isinstance(item, Poison):
                span = self._tracing.begin(Stage.STORE, message.traceparent, batch=self._batch)
                key, msg_type = _named_in(item)
                span.note(msg_id=key[1], msg_type=msg_type)
                self._storing.append((key, span))

    def _end(self, failure: str) -> None:
        for span in (*(span for _, span in self._storing), *self._publishing.values(), self._batch):
            span.end(failure)
        self._batch, self._storing, self._publishing = NO_SPAN, [], {}


def _named_in(item: Item) -> tuple[_Key, str]:
    if isinstance(item, SessionEvent):
        return (item.actor, notice_id(item)), item.msg_type.value
    return (item.sender, item.envelope.msg_id), item.envelope.msg_type.value


def _key_of(event: OutEvent) -> _Key:
    if isinstance(event, RejectedMessage):
        return event.sender, event.msg_id
    return event.envelope.msg_from, event.envelope.msg_id
