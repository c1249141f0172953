import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the stub modules, which drivers and workers import by name
