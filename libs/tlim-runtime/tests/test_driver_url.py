from tlim_runtime.driver_urls import driver_url


def test_asyncpg_gets_the_option_for_tls_under_its_own_name() -> None:
    assert driver_url("postgresql+asyncpg://a:b@c:5/d") == "postgresql://a:b@c:5/d"
    for_both = "postgresql+asyncpg://a:b@c/d?ssl=verify-full&application_name=x"
    assert driver_url(for_both) == "postgresql://a:b@c/d?sslmode=verify-full&application_name=x"
