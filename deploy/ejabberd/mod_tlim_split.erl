%% Ends a split of the cluster. If a node hangs, or the network between the nodes is away, for longer than net_ticktime,
%% each node takes the other one for dead. Mnesia says so when they meet again, and leaves the split as it is: each node
%% has sessions and routes that the other one does not know. So one of them ends, and whatever runs ejabberd starts it
%% again. It then takes over the tables of the other one. The clients of the node that ends connect again.
-module(mod_tlim_split).
-behaviour(gen_mod).
-export([start/2, stop/1, reload/3, depends/2, mod_options/1, mod_doc/0, watch/0]).
-include("logger.hrl").

start(_, _) ->
    mnesia:set_master_nodes([]), %% the tables are there now: another start does not need that node
    whereis(?MODULE) == undefined andalso register(?MODULE, spawn(?MODULE, watch, [])), ok.
stop(_) -> whereis(?MODULE) == undefined orelse exit(whereis(?MODULE), kill), ok.
reload(_, _, _) -> ok.
depends(_, _) -> [].
mod_options(_) -> [].
mod_doc() -> #{}.

watch() ->
    {ok, _} = mnesia:subscribe(system),
    look().
look() ->
    receive
        {mnesia_system_event, {inconsistent_database, running_partitioned_network, Node}} when node() < Node ->
            ?CRITICAL_MSG("the cluster was split: ejabberd starts anew with the tables of ~p", [Node]),
            mnesia:set_master_nodes([Node]),
            init:stop(1);
        _ -> look()
    end.
