"""The doors: HTTP framing, routes and their handlers. With ``protocol`` the only HTTP knowledge."""
