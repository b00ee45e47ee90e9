"""`atrous app`: work.py holds what it does, drawing.py what it shows, visit.py what a visitor asks for and has; page.py
and api.py are the gradio page and the API behind it, serving.py puts them on an address."""
