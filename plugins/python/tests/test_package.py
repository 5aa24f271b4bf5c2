"""The package as a whole: the oldest Python that it is for, and what it needs."""

import ast
import pathlib
import subprocess
import sys
import unittest

from tests.protocol_host import PACKAGE


class Package(unittest.TestCase):
    def test_every_file_is_in_the_syntax_of_python_3_9(self) -> None:
        files = [*PACKAGE.glob("host_plugin/**/*.py"), *PACKAGE.glob("tests/*.py")]
        self.assertGreater(len(files), 20)
        for file in files:
            ast.parse(file.read_text(encoding="utf-8"), str(file), feature_version=(3, 9))

    def test_a_start_imports_nothing_that_is_heavy(self) -> None:
        heavy = ("numpy", "torch", "asyncio", "inspect", "dataclasses")
        code = f"import sys, host_plugin._child; print([name for name in {heavy} if name in sys.modules])"
        ran = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE, capture_output=True, text=True, check=True)
        self.assertEqual(ran.stdout, "[]\n")

    def test_every_file_has_documentation(self) -> None:
        for file in pathlib.Path(PACKAGE, "host_plugin").glob("**/*.py"):
            self.assertIsNotNone(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), file)


if __name__ == "__main__":
    unittest.main()
