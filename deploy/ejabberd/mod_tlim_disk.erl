%% Starts ejabberd anew after a full disk. A table of Mnesia that could not be written refuses all writes from then on,
%% also when there is space again: no account can be made or changed. Closing and opening the file repairs it, and only
%% a new start does that to a table of Mnesia. So this module ends ejabberd, and whatever runs ejabberd starts it again.
%% While the disk is still full, ejabberd goes on: messages need no table.
-module(mod_tlim_disk).
-behaviour(gen_mod).
-export([start/2, stop/1, reload/3, depends/2, mod_options/1, mod_doc/0, look/0]).
-include("logger.hrl").
-define(LOOK_EVERY_MS, 2000). %% a look costs microseconds per table
-define(ROOM_BYTES, 1048576). %% a table grows by less; with no more space it would soon be broken again

start(_, _) -> {ok, Timer} = timer:apply_interval(?LOOK_EVERY_MS, ?MODULE, look, []), persistent_term:put(?MODULE, Timer).
stop(_) -> timer:cancel(persistent_term:get(?MODULE)), ok.
reload(_, _, _) -> ok.
depends(_, _) -> [].
mod_options(_) -> [].
mod_doc() -> #{}.

look() ->
    case [T || T <- mnesia:system_info(local_tables), is_broken(T)] of
        [] -> ok;
        Tables ->
            case has_room() of
                true ->
                    ?CRITICAL_MSG("tables have lost writes, and there is space again: ejabberd starts anew: ~p", [Tables]),
                    init:stop(1);
                false -> ok
            end
    end.

is_broken(Table) -> mnesia:table_info(Table, storage_type) == disc_only_copies andalso dets:sync(Table) /= ok.

has_room() ->
    Probe = filename:join(mnesia:system_info(directory), "room"),
    Written = file:write_file(Probe, binary:copy(<<0>>, ?ROOM_BYTES)),
    file:delete(Probe),
    Written == ok.
