"""The Grafana dashboard, deploy/grafana/dashboards/tlim.json: `python -m tlim_admin.dashboard FILE`."""

import json
import sys
from typing import Any, NamedTuple

from tlim_protocol.docs import write_or_check
from tlim_runtime.health import PROBES

_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 3
_OF_PEOPLE = f'route!~"{"|".join(sorted(PROBES))}"'
"""Requests that are no probes. Probes are the most where few people ask, and fail while an instance is not ready."""

_FAILED = ', status=~"5.."'
_SOURCE = {"type": "prometheus", "uid": "${source}"}


class Panel(NamedTuple):
    """A graph: its title, the unit as Grafana calls it, and pairs of an expression and what its lines are called."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]


def _quantiles(metric: str, by: str = "", some: str = "") -> tuple[tuple[str, str], ...]:
    groups, name = ("le", "") if not by else (f"le, {by}", f"{{{{{by}}}}} ")
    rate = f"rate({metric}_bucket{some}[$__rate_interval])"
    return tuple((f"histogram_quantile({q}, sum by ({groups}) ({rate}))", f"{name}p{q[2:]}") for q in ("0.50", "0.99"))


def _requests(more: str = "") -> str:
    some = f"{{{_OF_PEOPLE}{more}}}"
    return f"sum by (service) (rate(tlim_http_request_duration_seconds_count{some}[$__rate_interval]))"


ROWS: dict[str, tuple[Panel, ...]] = {
    "What people notice": (
        Panel(
            "Messages stored per second",
            "msgs",
            (("sum by (msg_type) (rate(tlim_message_store_stored_total[$__rate_interval]))", "{{msg_type}}"),),
        ),
        Panel("From stanza to stanza", "s", _quantiles("tlim_message_end_to_end_duration_seconds")),
        Panel("Stages of a message", "s", _quantiles("tlim_message_stage_duration_seconds", "stage")),
        Panel(
            "HTTP requests per second",
            "reqps",
            ((_requests(), "{{service}}"),),
        ),
        Panel(
            "HTTP requests that fail",
            "percentunit",
            (
                (f"{_requests(_FAILED)} / {_requests()}", "{{service}}"),
            ),
        ),
        Panel(
            "HTTP requests, duration",
            "s",
            _quantiles("tlim_http_request_duration_seconds", "service", f"{{{_OF_PEOPLE}}}"),
        ),
    ),
    "What waits": (
        Panel("Groups by message-store", "short", (("tlim_message_store_groups", "{{instance}}"),)),
        Panel("Consumer lag", "short", (("max by (consumer) (tlim_consumer_lag_messages)", "{{consumer}}"),)),
        Panel(
            "Not published, not in search",
            "short",
            (
                ("max(tlim_message_store_publication_lag_messages)", "not published"),
                ("max(tlim_message_store_search_lag_messages)", "not in search"),
            ),
        ),
        Panel("Outbox", "short", (("max by (service, state) (tlim_outbox_rows)", "{{service}} {{state}}"),)),
        Panel(
            "Dead letters",
            "short",
            (("sum by (consumer, cause) (increase(tlim_dead_letters_total[1h]))", "{{consumer}} {{cause}}"),),
        ),
        Panel("Refused after acceptance", "ops", (
            ("sum by (code) (rate(tlim_message_store_rejected_total[$__rate_interval]))", "{{code}}"),
        )),
        Panel("Unread drift", "short", (("max(tlim_unread_drift)", "messages"),)),
    ),
    "The bridge": (
        Panel("People present", "short", (("sum(tlim_bridge_people_present)", "people"),)),
        Panel("Messages from clients", "msgs", (
            ("sum by (outcome) (rate(tlim_bridge_inbound_total[$__rate_interval]))", "{{outcome}}"),
        )),
        Panel("Stanzas sent", "ops", (
            ("sum(rate(tlim_bridge_stanzas_total[$__rate_interval]))", "stanzas"),
            ("sum(rate(tlim_bridge_missed_total[$__rate_interval]))", "of these out of the log"),
        )),
        Panel("XMPP connections", "short", (("sum(tlim_xmpp_connection_up)", "bridges connected"),)),
        Panel("Shards of each bridge", "short", (("sum by (instance) (tlim_bridge_shards)", "{{instance}}"),)),
        Panel("Waiting", "short", (
            ("sum(tlim_bridge_catch_ups_waiting)", "catch-ups"),
            ("sum(tlim_bridge_in_flight)", "messages in flight"),
        )),
    ),
    "Room": (
        Panel("Streams, part that is full", "percentunit", (
            ("max by (stream) (tlim_stream_bytes) / max by (stream) (tlim_stream_limit_bytes)", "{{stream}}"),
        )),
        Panel("Databases", "bytes", (("max by (service) (tlim_database_size_bytes)", "{{service}}"),)),
        Panel("Mailboxes", "short", (("max(tlim_message_store_mailbox_rows)", "mailboxes"),)),
        Panel("Memory", "bytes", (
            ('process_resident_memory_bytes{job="tlim"}', "{{service}} {{instance}}"),
        )),
        Panel("Processor", "percentunit", (
            ('rate(process_cpu_seconds_total{job="tlim"}[$__rate_interval])', "{{service}} {{instance}}"),
        )),
        Panel("Days until the certificate ends, hours since the last backup", "short", (
            ("(min by (certificate) (tlim_certificate_expiry_timestamp_seconds) - time()) / 86400", "{{certificate}}"),
            ("(time() - max(tlim_backup_last_success_timestamp_seconds)) / 3600", "backup"),
        )),
    ),
}  # fmt: skip


def expressions() -> list[str]:
    """Return everything that the dashboard asks Prometheus."""
    return [expression for panels in ROWS.values() for panel in panels for expression, _ in panel.lines]


def render() -> str:
    """Return the dashboard as Grafana reads it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, graphs in ROWS.items():
        panels.append({"type": "row", "title": title, "gridPos": {"x": 0, "y": top, "w": 24, "h": 1}, "panels": []})
        panels += [_graph(graph, place, top + 1) for place, graph in enumerate(graphs)]
        top += 1 + _HEIGHT * -(-len(graphs) // _COLUMNS)
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    source = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    dashboard = {
        "uid": "tlim",
        "title": "tlim",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [source]},
        "panels": panels,
    }
    return json.dumps(dashboard, indent=1) + "\n"


def _graph(panel: Panel, place: int, top: int) -> dict[str, Any]:
    x, y = _WIDTH * (place % _COLUMNS), top + _HEIGHT * (place // _COLUMNS)
    return {
        "type": "timeseries",
        "title": panel.title,
        "datasource": _SOURCE,
        "gridPos": {"x": x, "y": y, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": expression, "legendFormat": legend}
            for number, (expression, legend) in enumerate(panel.lines)
        ],
    }


if __name__ == "__main__":
    sys.exit(write_or_check(sys.argv[1:], render()))
