"""`lading audit`: how sure spot checks are. Names the commands; each is elsewhere."""

from cyclopts import App

app = App(name="audit", help="How sure spot checks are.")
app.command(
    "lading_node.cli_calibrate:calibrate_command",
    name="calibrate",
    help="Measure what honest hosts show, and sign the limits of a numeric class.",
)
