"""Rate-distortion: codecs over a folder of pictures, metrics, BD-rates, and the page that shows them."""
