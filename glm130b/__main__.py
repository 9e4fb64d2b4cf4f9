"""``python -m glm130b`` is the console command."""

from glm130b.cli import main

raise SystemExit(main())
