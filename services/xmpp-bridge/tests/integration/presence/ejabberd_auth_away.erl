%% Accounts in a database that is away: for the tests it comes behind the real ones.
-module(ejabberd_auth_away).
-export([start/1, stop/1, plain_password_required/1, store_type/1, use_cache/1, get_password/2]).
start(_) -> ok.
stop(_) -> ok.
plain_password_required(_) -> true.
store_type(_) -> scram.
use_cache(_) -> false.
get_password(_, _) -> {nocache, error}. %% as ejabberd_auth_sql
