"""The tests reach nothing but this machine: this process from here on, and every Python that it starts."""

import os

from tests.offline import sitecustomize

os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(sitecustomize.FOLDER), os.environ.get("PYTHONPATH")]))
