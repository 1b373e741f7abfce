%% Ends a session whose account was closed while its client logged in. A closed account gets another password, and its
%% sessions end. A client that had passed the check of its password by then, but had no session yet, would open one
%% afterwards. So a new session ends if the password has changed.
-module(mod_tlim_login).
-behaviour(gen_mod).
-export([start/2, stop/1, reload/3, depends/2, mod_options/1, mod_doc/0, authenticated/3, opened/1]).

hooks(H) -> [{c2s_auth_result, H, ?MODULE, authenticated, 50}, {c2s_session_opened, H, ?MODULE, opened, 50}].
start(H, _) -> change(add, hooks(H)).
stop(H) -> change(delete, hooks(H)).
change(How, Hooks) -> [apply(ejabberd_hooks, How, tuple_to_list(T)) || T <- Hooks], ok.
reload(_, _, _) -> ok.
depends(_, _) -> [].
mod_options(_) -> [].
mod_doc() -> #{}.

authenticated(#{lserver := S} = State, true, U) -> State#{tlim_password => password(U, S)};
authenticated(State, _, _) -> State.
opened(#{user := U, lserver := S, tlim_password := P} = State) ->
    P == password(U, S) orelse ejabberd_c2s:route(self(), kick),
    State;
opened(State) -> State.
password(U, S) -> erlang:phash2(ejabberd_auth:get_password(U, S)).
