%% The tables of ejabberd in PostgreSQL, for a cluster (tlim_cluster). A job makes them, and nodes wait for them.
-module(tlim_tables).
-export([make/0, wait/0]).
-define(AGAIN, 2000). %% ms
-define(SCHEMA, "/usr/share/ejabberd/sql/pg.sql").

make() -> start(fun(Connection) -> are_there(Connection) orelse create(Connection) end).
wait() -> start(fun are_there/1).

%% PostgreSQL may not be there yet, and so may the tables: it is tried again, until somebody else loses patience.
start(Do) ->
    [{ok, _} = application:ensure_all_started(App) || App <- [stringprep, p1_pgsql]],
    os:getenv("XMPP_SQL_CA_FILE") == false orelse tlim_sql_tls:open(),
    run(Do).
run(Do) ->
    case pgsql:connect(login()) of
        {ok, Connection} -> end_or_repeat(Do(Connection), Do);
        Refused -> end_or_repeat(Refused, Do)
    end.
end_or_repeat(true, _) -> io:format("the tables of ejabberd are there~n"), halt(0);
end_or_repeat(What, Do) -> io:format("not yet: ~p~n", [What]), timer:sleep(?AGAIN), run(Do).

login() ->
    [Host, Port] = case os:getenv("XMPP_SQL_CA_FILE") of
        false -> string:split(os:getenv("XMPP_SQL_SERVER"), ":", trailing);
        _ -> ["127.0.0.1", os:getenv("XMPP_SQL_PORT")]
    end,
    {ok, Password} = file:read_file(os:getenv("XMPP_SQL_PASSWORD_FILE")),
    [{host, Host}, {port, list_to_integer(Port)}, {database, "ejabberd"}, {user, "ejabberd"},
     {password, binary_to_list(string:trim(Password))}, {as_binary, true}].

%% All of it is one message to PostgreSQL, which is one transaction.
create(Connection) ->
    {ok, Schema} = file:read_file(?SCHEMA),
    {ok, Results} = pgsql:squery(Connection, Schema),
    case [Error || {error, Error} <- Results] of
        [] -> true;
        Errors -> Errors
    end.
are_there(Connection) ->
    {ok, [{_, _, Rows}]} = pgsql:squery(Connection, "SELECT 1 FROM pg_tables WHERE tablename = 'rosterusers'"),
    Rows /= [].
