"""Store formats, one file each; `base.open_store` finds the one that fits."""
