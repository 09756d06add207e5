# Found instead of libsystemd, and defines no target: see ../config.toml.
