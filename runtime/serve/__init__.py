"""The endpoints that annotation tools ask: X-AnyLabeling's remote server and Label Studio's ML backend."""
