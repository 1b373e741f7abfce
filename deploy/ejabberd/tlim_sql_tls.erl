%% The way to a PostgreSQL that speaks TLS, for the nodes of a cluster (tlim_cluster) and for tlim_tables. Debian's driver
%% (p1_pgsql 1.1.20) does not tell TLS whom it calls, so that only a certificate with the server's address would count.
%% So the driver connects to a port of loopback, in the clear, and from there it is TLS with a server that is verified.
%%
%% XMPP_SQL_SERVER is host:port, XMPP_SQL_CA_FILE the authority of its certificate, XMPP_SQL_PORT the port of loopback.
%% The name in the certificate is compared unless XMPP_SQL_OPTIONS say verify-ca.
-module(tlim_sql_tls).
-export([open/0]).
-include_lib("kernel/include/logger.hrl").
-define(REQUEST, <<8:32, 80877103:32>>). %% SSLRequest (PostgreSQL, frontend/backend protocol, "SSL Session Encryption")
-define(PATIENCE, 5000). %% ms
-define(AGAIN, 100). %% ms

%% Returns when the port is open. A node that cannot open it, or loses it, ends.
open() ->
    {ok, _} = application:ensure_all_started(ssl),
    Port = list_to_integer(os:getenv("XMPP_SQL_PORT")),
    Caller = self(),
    Pid = spawn(fun() ->
        try serve(Port, fun() -> Caller ! {self(), open} end)
        catch _:Reason -> ?LOG_ERROR("the way to PostgreSQL: ~p", [Reason]), halt(1) end
    end),
    receive {Pid, open} -> ok end.

serve(Port, SayOpen) ->
    Options = [binary, {active, false}, {ip, {127, 0, 0, 1}}, {reuseaddr, true}, {nodelay, true}],
    {ok, Door} = gen_tcp:listen(Port, Options),
    SayOpen(),
    accept(Door).

accept(Door) ->
    case gen_tcp:accept(Door) of
        {ok, Near} ->
            Pid = spawn(fun() -> receive go -> lead(Near) end end),
            ok = gen_tcp:controlling_process(Near, Pid),
            Pid ! go;
        {error, Reason} -> ?LOG_ERROR("the way to PostgreSQL: ~p", [Reason]), timer:sleep(?AGAIN)
    end,
    accept(Door).

lead(Near) ->
    [Host, Port] = string:split(os:getenv("XMPP_SQL_SERVER"), ":", trailing),
    case secured(Host, list_to_integer(Port)) of
        {ok, Far} -> listen(Near, Far), pass(Near, Far);
        {error, Reason} -> ?LOG_ERROR("PostgreSQL at ~s: ~p", [Host, Reason]), gen_tcp:close(Near)
    end.
secured(Host, Port) ->
    case gen_tcp:connect(Host, Port, [binary, {active, false}, {nodelay, true}, {keepalive, true}], ?PATIENCE) of
        {ok, Plain} -> ok = gen_tcp:send(Plain, ?REQUEST), agreed(Plain, Host);
        Error -> Error
    end.
agreed(Plain, Host) ->
    case gen_tcp:recv(Plain, 1, ?PATIENCE) of
        {ok, <<"S">>} -> ssl:connect(Plain, tls(Host), ?PATIENCE);
        {ok, _} -> {error, "it speaks no TLS"};
        Error -> Error
    end.

tls(Host) -> [{verify, verify_peer}, {cacertfile, os:getenv("XMPP_SQL_CA_FILE")} | named(Host)].
named(Host) ->
    IsAddress = element(1, inet:parse_address(Host)) == ok, %% ssl compares an address by itself
    case string:find(os:getenv("XMPP_SQL_OPTIONS", ""), "verify-ca") of
        nomatch when IsAddress -> [];
        nomatch -> Match = public_key:pkix_verify_hostname_match_fun(https),
                   [{server_name_indication, Host}, {customize_hostname_check, [{match_fun, Match}]}];
        _ -> [{server_name_indication, disable}]
    end.

%% A side that has ended meanwhile says so here only.
listen(Near, Far) ->
    case {inet:setopts(Near, [{active, once}]), ssl:setopts(Far, [{active, once}])} of
        {ok, ok} -> ok;
        Ended -> self() ! Ended
    end.
pass(Near, Far) ->
    case receive
             {tcp, Near, Data} -> ssl:send(Far, Data);
             {ssl, _, Data} -> gen_tcp:send(Near, Data);
             Closed -> {error, Closed}
         end of
        ok -> listen(Near, Far), pass(Near, Far);
        {error, _} -> gen_tcp:close(Near), ssl:close(Far)
    end.
