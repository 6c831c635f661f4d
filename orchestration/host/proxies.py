"""What a proxy named in the environment has to do with a server that does not answer."""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def about_a_proxy(url: str) -> str:
    """That a URL is asked for through a proxy, and how to go around it; "" where it is not."""
    place = urlsplit(url)
    host, proxies = place.hostname or "", getproxies()
    proxy = proxies.get(place.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(place.netloc):
        return ""
    where = urlsplit(proxy if "//" in proxy else f"//{proxy}")  # shown without a password
    return (
        f" (it was asked through the proxy {where.hostname}, which the environment names in {place.scheme}_proxy or "
        f"all_proxy; to ask it directly, add {host} to no_proxy)"
    )
