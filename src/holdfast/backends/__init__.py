"""The engines that can keep a store; `holdfast.backend.open_backend` imports the one a URL names."""
