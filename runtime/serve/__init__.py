"""The endpoints for annotation tools: X-AnyLabeling's remote server and Label Studio's ML backend."""
