"""`atrous app`: work.py holds what it does, drawing.py what it shows, page.py puts both on a gradio page."""
