%% Serves a renewed certificate without a restart. ejabberd 23.01 reads its certificate files when it starts, and when
%% its configuration is read anew. So this module looks whether their content has changed. If no key fits the new
%% certificate, because half of it is written for example, ejabberd keeps what it has.
-module(mod_tlim_certificate).
-behaviour(gen_mod).
-export([start/2, stop/1, reload/3, depends/2, mod_options/1, mod_doc/0, watch/1]).
-include("logger.hrl").
-define(LOOK_EVERY_MS, 2000). %% a look reads a few KiB

start(_, _) -> whereis(?MODULE) == undefined andalso register(?MODULE, spawn(?MODULE, watch, [contents()])), ok.
stop(_) -> whereis(?MODULE) == undefined orelse exit(whereis(?MODULE), kill), ok.
reload(_, _, _) -> ok.
depends(_, _) -> [].
mod_options(_) -> [].
mod_doc() -> #{}.

watch(Seen) ->
    timer:sleep(?LOOK_EVERY_MS),
    Now = contents(),
    Now == Seen orelse renew([File || {File, _} <- Now -- Seen], [Pem || {_, Pem} <- Now]),
    ?MODULE:watch(Now).

contents() ->
    Patterns = case ejabberd_option:certfiles() of undefined -> []; List -> List end,
    Files = lists:append([filelib:wildcard(binary_to_list(P)) || P <- Patterns]),
    [{File, Pem} || File <- Files, {ok, Pem} <- [file:read_file(File)]].

renew(Files, Pems) ->
    case is_usable(lists:append([entries(Pem) || Pem <- Pems])) of
        true ->
            [ejabberd_pkix:del_certfile(File) || File <- Files], %% or it compares times, which are full seconds
            ejabberd_pkix:commit(),
            ?WARNING_MSG("the certificate was renewed: ~p", [Files]);
        false -> ?ERROR_MSG("no key fits the new certificate, the one before stays: ~p", [Files])
    end.

%% The first certificate is the server's. Those behind it lead to the authority.
is_usable(Entries) ->
    Keys = [E || {Type, _, not_encrypted} = E <- Entries, Type /= 'Certificate', Type /= 'EcpkParameters'],
    case [Der || {'Certificate', Der, not_encrypted} <- Entries] of
        [Leaf | _] -> lists:any(fun(Key) -> fits(Key, Leaf) end, Keys);
        [] -> false
    end.
entries(Pem) -> try public_key:pem_decode(Pem) catch _:_ -> [] end.
fits(Key, Leaf) -> lists:any(fun(Digest) -> fits(Key, Leaf, Digest) end, [sha256, none]). %% none: Ed25519
fits(Key, Leaf, Digest) ->
    try
        Signature = public_key:sign(<<"tlim">>, Digest, public_key:pem_entry_decode(Key)),
        public_key:verify(<<"tlim">>, Digest, Signature, public_part(Leaf))
    catch _:_ -> false end.
public_part(Leaf) -> %% by position: Debian has the records' definitions only in the package erlang-dev
    Signed = element(2, public_key:pkix_decode_cert(Leaf, otp)),
    {'OTPSubjectPublicKeyInfo', {'PublicKeyAlgorithm', _, Parameters}, Key} = element(8, Signed),
    case Key of
        {'ECPoint', _} -> {Key, Parameters};
        _ -> Key
    end.
