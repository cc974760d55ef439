"""Reports: plain numbers to pages and pictures."""
