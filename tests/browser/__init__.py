"""The status page and the demo's pages in a real browser (Chromium, through Playwright)."""
