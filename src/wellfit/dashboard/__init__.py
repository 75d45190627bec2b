"""The command center: a live page over a folder of runs. It reads run folders, and writes requests into them."""
