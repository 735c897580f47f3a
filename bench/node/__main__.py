"""Makes ready what the tests on a node take: programs, our images and the stand-ins.

It ends with 77 where there can't be a node, and says loudly what is missing.
"""

import sys
from typing import Final

import images
import tools
from engines import EngineError
from toolchain import SetupError, say

from node import needs, standins

NO_NODE: Final = """
*** NOT RUN: the tests on a real node, whose pods are containers. Here it takes
*** {missing}.
"""
UNAVAILABLE: Final = 77


def main() -> int:
    if missing := needs.missing():
        say(NO_NODE.format(missing=",\n*** ".join(missing)))
        return UNAVAILABLE
    try:
        for each in (tools.CONTROL, tools.NODE, tools.CHART):
            tools.ensure(each)
        images.build_all()
        standins.ensure()
    except (tools.ToolsError, EngineError, SetupError) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
