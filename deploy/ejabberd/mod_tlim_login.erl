%% Ends a session whose account was closed while its client logged in, or where this node could not hear of it. A closed
%% account gets another password, and its sessions end. A client that had passed the check of its password by then, but
%% had no session yet, would open one afterwards, or resume one. So a new session ends if the password has changed.
-module(mod_tlim_login).
-behaviour(gen_mod).
-export([start/2, stop/1, reload/3, depends/2, mod_options/1, mod_doc/0, authenticated/3, opened/1, told/2]).
-export([look/0, tell/1]).
-include("ejabberd_sm.hrl").
-define(AGAIN, 5000). %% ms: the database may be away for longer

hooks(H) ->
    [{c2s_auth_result, H, ?MODULE, authenticated, 50}, {c2s_session_opened, H, ?MODULE, opened, 50},
     {c2s_session_resumed, H, ?MODULE, opened, 60}, {c2s_handle_info, H, ?MODULE, told, 40}].
start(H, _) -> change(add, hooks(H)).
stop(H) -> change(delete, hooks(H)).
change(How, Hooks) -> [apply(ejabberd_hooks, How, tuple_to_list(T)) || T <- Hooks], ok.
reload(_, _, _) -> ok.
depends(_, _) -> [].
mod_options(_) -> [].
mod_doc() -> #{}.

%% A backend that keeps no passwords, as LDAP, knows what is in the cache only. Such a session is not looked at.
authenticated(#{lserver := S, auth_module := M} = State, true, U) ->
    case erlang:function_exported(M, get_password, 2) of
        true -> State#{tlim_password => password(U, S)};
        false -> State
    end;
authenticated(State, _, _) -> State.
opened(#{user := U, lserver := S, tlim_password := P} = State) ->
    case password(U, S) of
        unknown -> spawn(?MODULE, tell, [[{self(), U, S}]]);
        P -> ok;
        _ -> ejabberd_c2s:route(self(), kick)
    end,
    State;
opened(State) -> State.
%% Without the database nothing is known. ejabberd then says that there is no such account, and only its backend says
%% which of the two it is.
password(U, S) ->
    case ejabberd_auth:get_password(U, S) of
        false ->
            Answers = [catch M:get_password(U, S) || M <- ejabberd_auth:auth_modules(S)],
            case {lists:member({nocache, error}, Answers), [P || {_, {ok, P}} <- Answers]} of
                {true, _} -> unknown;
                {_, [P | _]} -> erlang:phash2(P); %% the database came back between the two questions
                _ -> none
            end;
        Password -> erlang:phash2(Password)
    end.

%% What another node changed while it could not be reached is in the database. The caches of this node do not know it,
%% and the sessions here were not ended. They do not ask themselves: a database that is away would hold them up.
look() ->
    [ets_cache:clear(Cache) || Cache <- ets_cache:all()],
    Sessions = [{Pid, U, S} || #session{sid = {_, Pid}, usr = {U, S, _}} <- ejabberd_sm:dirty_get_my_sessions_list()],
    spawn(?MODULE, tell, [Sessions]), ok.
tell(Sessions) ->
    case [One || {Pid, U, S} = One <- Sessions, is_process_alive(Pid), tell(Pid, password(U, S)) == unknown] of
        [] -> ok;
        Later -> timer:sleep(?AGAIN), ?MODULE:tell(Later)
    end.
tell(_, unknown) -> unknown;
tell(Pid, P) -> Pid ! {tlim_password, P}.
told(#{tlim_password := P} = State, {tlim_password, Now}) when P /= Now ->
    ejabberd_c2s:route(self(), kick), {stop, State};
told(State, {tlim_password, _}) -> {stop, State};
told(State, _) -> State.
