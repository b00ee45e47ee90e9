VIDEOS = (".mp4",)
