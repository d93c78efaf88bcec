"""Other people's files and folders: spikes in any format, dataset folders as recordings."""
