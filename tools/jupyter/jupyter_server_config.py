"""How the lessons' JupyterLab starts. Read through JUPYTER_CONFIG_PATH (see Makefile and binder/start)."""

import logging
import re

c = get_config()  # noqa: F821  (Jupyter puts this function here)
c.ServerApp.default_url = "/lab/tree/notebooks/00_start_here.ipynb"
c.LabApp.default_url = c.ServerApp.default_url
# No request to the network, hence no question about news and no look for a newer JupyterLab.
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"


def _one_line(record: logging.LogRecord) -> bool:
    """Of what the server says about its address, one line that says what to do."""
    if record.levelno == logging.CRITICAL and (address := re.search(r"http://\S+", record.getMessage())):
        record.msg = "The lessons open in your browser. If not, open %s   (Ctrl+C here ends them)"
        record.args = (address.group(),)
    return True


c.Application.log_level = "ERROR"
c.Application.log_format = "%(message)s"
logging.getLogger("ServerApp").addFilter(_one_line)
