"""How the lessons' JupyterLab starts. Read through JUPYTER_CONFIG_PATH (see Makefile and binder/start)."""

c = get_config()  # noqa: F821  (Jupyter puts this function here)
c.ServerApp.default_url = "/lab/tree/notebooks/00_start_here.ipynb"
c.LabApp.default_url = c.ServerApp.default_url
# No request to the network, hence no question about news and no look for a newer JupyterLab.
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
