"""This machine as vpnd uses it: links, routes, filters, sockets, clocks. It knows no tunnels."""
