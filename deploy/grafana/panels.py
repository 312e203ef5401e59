"""The look that all dashboards share: one colour for one thing, a unit on every axis, a question for every panel."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Final, NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE: Final = "prometheus"
"""The uid under which provisioning/datasources creates it."""
TAG: Final = "inmail"

GOOD, WARN, BAD, CALM = "green", "orange", "red", "text"

SERVICE_COLOURS: Final = {
    "ingestion": "#5794F2",
    "classification": "#B877D9",
    "credits": "#FADE2A",
    "notification": "#FF9830",
    "inbox": "#73BF69",
    "insights": "#8AB8FF",
}
LATENCY_COLOURS: Final = {"half within": "#73BF69", "95 % within": "#FADE2A", "99 % within": "#FF9830"}

_PANEL_HEIGHT: Final = 8
_STAT_HEIGHT: Final = 4


class Query(NamedTuple):
    """What is asked of Prometheus, and what the line is called; `{{label}}` in the name stands for a label's value."""

    expr: str
    name: str


class Level(NamedTuple):
    """From which value on a colour holds; None: from the lowest."""

    value: float | None
    colour: str


Panel = stat.Panel | timeseries.Panel


def letters(labels: str, window: str) -> str:
    """Ask how many dead letters a window holds, by series; `increase` alone does not see the first one of a series."""
    counter = f"inmail_dead_letters_total{{{labels}}}"
    return f"({counter} unless {counter} offset {window} or increase({counter}[{window}]))"


def board(
    uid: str, title: str, purpose: str, rows: Mapping[str, Sequence[Panel]], *, since: str = "now-6h"
) -> dashboard.Dashboard:
    """Build a dashboard from rows of panels; it marks firing alerts and links to the others."""
    alerts = (
        dashboard.AnnotationQuery()
        .name("Alerts")
        .datasource(_datasource())
        .enable(enable=True)
        .icon_color(BAD)
        .expr('ALERTS{alertstate="firing",alertname=~"Inmail.+"}')
        .title_format("{{alertname}}")
        .text_format("{{service}}")
    )
    others = dashboard.DashboardLink("InMail").type(model.DashboardLinkType.DASHBOARDS).tags([TAG]).keep_time(True)  # noqa: FBT003
    result = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(purpose)
        .tags([TAG])
        .timezone("browser")
        .time(since, "now")
        .refresh("30s")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .readonly()  # it is changed here, not in the browser
        .annotation(alerts)
        .link(others)
    )
    numbers = count(1)
    for heading, panels in rows.items():
        result = result.with_row(dashboard.Row(heading).id(next(numbers)))
        for panel in panels:
            result = result.with_panel(panel.id(next(numbers)))
    return result


def service_variable() -> dashboard.QueryVariable:
    """A choice of services, all by default, as `$service`."""
    return (
        dashboard.QueryVariable("service")
        .label("Service")
        .datasource(_datasource())
        .query("label_values(inmail_progress_timestamp_seconds, service)")
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)  # noqa: FBT003
        .include_all(True)  # noqa: FBT003
        .all_value(".+")
        .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def number(
    title: str,
    question: str,
    expr: str,
    *,
    unit: str = "short",
    levels: Sequence[Level] = (Level(None, CALM),),
    decimals: int = 0,
) -> stat.Panel:
    """One number, as of now or over the time range shown; six fill a row."""
    return (
        stat.Panel()
        .title(title)
        .description(question)
        .datasource(_datasource())
        .with_target(_target(Query(expr, title), instant=True))
        .unit(unit)
        .decimals(decimals)
        .no_value("-")
        .thresholds(_thresholds(levels))
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .color_mode(look.BigValueColorMode.VALUE)
        .graph_mode(look.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))  # noqa: FBT003
        .span(4)
        .height(_STAT_HEIGHT)
    )


def lines(
    title: str,
    question: str,
    queries: Sequence[Query],
    *,
    unit: str,
    colours: Mapping[str, str] = SERVICE_COLOURS,
    limit: float | None = None,
    stacked: bool = False,
) -> timeseries.Panel:
    """Values over time; three fill a row. `limit` is where the alert stands, drawn as a dashed line."""
    levels = [Level(None, GOOD)] if limit is None else [Level(None, GOOD), Level(limit, BAD)]
    style = look.GraphThresholdsStyleMode.OFF if limit is None else look.GraphThresholdsStyleMode.DASHED
    panel = (
        timeseries.Panel()
        .title(title)
        .description(question)
        .datasource(_datasource())
        .targets([_target(query, ref=chr(ord("A") + place)) for place, query in enumerate(queries)])
        .unit(unit)
        .min(0)
        .thresholds(_thresholds(levels))
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(style))
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .line_width(1)
        .fill_opacity(25 if stacked else 8)
        .show_points(look.VisibilityMode.NEVER)
        .stacking(common.StackingConfig().mode(look.StackingMode.NORMAL if stacked else look.StackingMode.NONE))
        .legend(
            common.VizLegendOptions()
            .show_legend(True)  # noqa: FBT003
            .display_mode(look.LegendDisplayMode.LIST)
            .placement(look.LegendPlacement.BOTTOM)
        )
        .tooltip(common.VizTooltipOptions().mode(look.TooltipDisplayMode.MULTI).sort(look.SortOrder.DESCENDING))
        .span(8)
        .height(_PANEL_HEIGHT)
    )
    for name, colour in colours.items():
        fixed = model.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})
        panel = panel.override_by_name(name, [fixed])
    return panel


def latency(metric: str, selector: str) -> list[Query]:
    """Within which time half, 95 % and 99 % of a histogram's events lie."""
    shares = (("half within", 0.5), ("95 % within", 0.95), ("99 % within", 0.99))
    rate = f"sum by (le) (rate({metric}_bucket{{{selector}}}[$__rate_interval]))"
    return [Query(f"histogram_quantile({share}, {rate})", name) for name, share in shares]


def _target(query: Query, *, ref: str = "A", instant: bool = False) -> prometheus.Dataquery:
    target = prometheus.Dataquery().datasource(_datasource()).expr(query.expr).legend_format(query.name)
    target = target.ref_id(ref).format(PromQueryFormat.TIME_SERIES)
    return target.instant() if instant else target.range()


def _thresholds(levels: Sequence[Level]) -> dashboard.ThresholdsConfig:
    steps = [model.Threshold(value=level.value, color=level.colour) for level in levels]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def _datasource() -> look.DataSourceRef:
    return look.DataSourceRef(type_val="prometheus", uid=DATASOURCE)
