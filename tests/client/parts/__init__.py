"""Parts of the SDK's tests."""
