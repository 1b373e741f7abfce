%% XMPP over WebSocket (RFC 7395), with the same bounds as over TCP. ejabberd 23.01 has two faults here. It accepts
%% frames of any size, even before a login. It also reads a socket faster than it can process the data. So a guard
%% process owns the socket. The guard reads only when the earlier data is processed. It adds up the lengths that the
%% frames announce (RFC 6455 section 5.2), and ends the connection when a message is too long.
-module(tlim_websocket).
-export([socket_handoff/3]).           %% a request handler of ejabberd_http
-export([send/2, setopts/2, close/1]). %% a socket of ejabberd_websocket
-include("ejabberd_http.hrl").
-define(MAX_MESSAGE, 524288). %% bytes, as max_stanza_size of TCP
-define(MAX_CONTROL, 125).    %% bytes, RFC 6455 section 5.5
-define(POLL, 5).             %% ms
-define(OWNED_WITHIN, 10000). %% ms

socket_handoff(Path, #request{sockmod = Mod, socket = Raw, data = Data} = Request, Opts) ->
    case erlang:system_info(port_count) > erlang:system_info(port_limit) div 2 of
        true -> {503, [{<<"Retry-After">>, <<"10">>}], <<>>}; %% half of the sockets stay free for TCP and the bridge
        false ->
            Guarded = Request#request{sockmod = ?MODULE, socket = {Mod, Raw, Data}, data = <<>>},
            ejabberd_http_ws:socket_handoff(Path, Guarded, Opts)
    end.

send({Mod, Raw, _}, Data) -> Mod:send(Raw, Data).
close({Mod, Raw, _}) -> Mod:close(Raw).
setopts({Mod, Raw, Data}, _) -> %% once, when the handshake is over
    Loop = self(),
    Guard = spawn_link(fun() -> guard(Data, {Loop, Mod, Raw}) end),
    ok = hand_over(Mod, Raw, Guard, ?OWNED_WITHIN div ?POLL),
    Guard ! start,
    ok.
hand_over(Mod, Raw, Guard, Tries) -> %% on a busy machine the process that accepted the socket may still own it
    case Mod:controlling_process(Raw, Guard) of
        {error, not_owner} when Tries > 0 -> timer:sleep(?POLL), hand_over(Mod, Raw, Guard, Tries - 1);
        Result -> Result
    end.
guard(Data, {Loop, _, _} = To) ->
    monitor(process, Loop),
    receive start -> pass(Data, {<<>>, 0, 0}, To) end.

pass(Data, State, {Loop, Mod, Raw} = To) ->
    case count(Data, State) of
        too_long ->
            Mod:send(Raw, <<16#88, 2, 1009:16>>), %% "message too big", RFC 6455 section 7.4.1
            Loop ! {tcp_closed, Raw};
        Counted ->
            Data == <<>> orelse (Loop ! {tcp, Raw, Data}),
            wait_for(Loop),
            activate(Mod, Raw),
            read(Counted, To)
    end.
read(State, {Loop, Mod, Raw} = To) ->
    receive
        {tcp, _, Data} when Mod == fast_tls ->
            case fast_tls:recv_data(Raw, Data) of
                {ok, Plain} -> pass(Plain, State, To);
                {error, _} -> Loop ! {tcp_closed, Raw}
            end;
        {tcp, _, Data} -> pass(Data, State, To);
        _ -> Loop ! {tcp_closed, Raw}
    end.
activate(gen_tcp, Raw) -> inet:setopts(Raw, [{active, once}]);
activate(Mod, Raw) -> Mod:setopts(Raw, [{active, once}]).
wait_for(Loop) ->
    case process_info(Loop, message_queue_len) of
        {_, N} when N > 0 -> timer:sleep(?POLL), wait_for(Loop);
        _ -> ok
    end.

%% The state holds three things: the first bytes of an unfinished header, the bytes that are still to come of this
%% frame, and the bytes of this message so far.
count(<<>>, State) -> State;
count(Data, {Header, 0, Size}) ->
    case header(<<Header/binary, Data/binary>>) of
        {_, Opcode, Length, Rest} when Opcode >= 8, Length =< ?MAX_CONTROL -> count(Rest, {<<>>, Length, Size});
        {Fin, Opcode, Length, Rest} when Opcode < 8, Size + Length =< ?MAX_MESSAGE ->
            count(Rest, {<<>>, Length, (1 - Fin) * (Size + Length)});
        {_, _, _, _} -> too_long;
        Begun -> {Begun, 0, Size}
    end;
count(Data, {Header, Left, Size}) when byte_size(Data) > Left ->
    <<_:Left/binary, Rest/binary>> = Data,
    count(Rest, {Header, 0, Size});
count(Data, {Header, Left, Size}) -> {Header, Left - byte_size(Data), Size}.

header(<<Fin:1, _:3, Opcode:4, Mask:1, 127:7, Length:64, _:(Mask * 32), Rest/binary>>) -> {Fin, Opcode, Length, Rest};
header(<<Fin:1, _:3, Opcode:4, Mask:1, 126:7, Length:16, _:(Mask * 32), Rest/binary>>) -> {Fin, Opcode, Length, Rest};
header(<<Fin:1, _:3, Opcode:4, Mask:1, Length:7, _:(Mask * 32), Rest/binary>>) when Length < 126 -> {Fin, Opcode, Length, Rest};
header(Begun) -> Begun.
