%% ejabberd's HTTP API (mod_http_api), for requests with `Authorization: Bearer <api_secret of mod_tlim_bridge>` only.
%% The secret is the only key: api_permissions asks for the tag that is set here, and looks at no address. mod_http_api
%% answers with Access-Control-Allow-Origin: *, which would let in web pages.
-module(tlim_api).
-export([process/2]). %% a request handler of ejabberd_http
-include("ejabberd_http.hrl").

process(Path, #request{auth = {oauth, Secret, _}} = Request) ->
    case is_right(Secret, gen_mod:get_module_opt(hd(ejabberd_option:hosts()), mod_tlim_bridge, api_secret)) of
        true -> for_programs_only(mod_http_api:process(Path, Request#request{auth = undefined, opts = [{tag, <<"tlim_api">>}]}));
        false -> refused()
    end;
process(_, _) -> refused().

is_right(_, <<>>) -> false;
is_right(Given, Secret) -> crypto:hash_equals(crypto:hash(sha256, Given), crypto:hash(sha256, Secret)).
refused() -> {401, [{<<"WWW-Authenticate">>, <<"Bearer">>}], <<>>}.
for_programs_only({Status, Headers, Body}) ->
    {Status, [H || {Name, _} = H <- Headers, Name /= <<"Access-Control-Allow-Origin">>], Body}.
