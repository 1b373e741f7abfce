%% Lets a backup read the accounts of a host, and put them back: names, and what SCRAM keeps of the passwords (RFC 5802,
%% section 3). A page begins behind the name `after`. An account that is there with another password stays as it is.
-module(mod_tlim_accounts).
-behaviour(gen_mod).
-export([start/2, stop/1, reload/3, depends/2, mod_options/1, mod_doc/0, page/3, restore/3]).
-include("ejabberd_commands.hrl").
-include("scram.hrl").

start(_, _) -> ejabberd_commands:register_commands(?MODULE, commands()).
stop(_) -> ejabberd_commands:unregister_commands(commands()).
reload(_, _, _) -> ok.
depends(_, _) -> [].
mod_options(_) -> [].
mod_doc() -> #{}.

commands() ->
    [#ejabberd_commands{
        name = tlim_accounts, tags = [accounts], desc = "A page of the accounts of a host, in the order of their names",
        module = ?MODULE, function = page,
        args = [{host, binary}, {'after', binary}, {limit, integer}],
        result = {accounts, {list, {account, {tuple, [{user, string}, {credential, string}]}}}}},
     #ejabberd_commands{
        name = tlim_restore_account, tags = [accounts], desc = "Make an account with a credential of tlim_accounts",
        module = ?MODULE, function = restore,
        args = [{host, binary}, {user, binary}, {credential, binary}],
        result = {res, rescode}}].

page(Host, After, Limit) ->
    Names = lists:sort([User || {User, _} <- ejabberd_auth:get_users(Host), User > After]),
    [{User, written(ejabberd_auth:get_password(User, Host))} || User <- lists:sublist(Names, Limit)].

restore(Host, User, Credential) ->
    Password = read(binary:split(Credential, <<":">>, [global])),
    case ejabberd_auth:try_register(User, Host, Password) of
        ok -> ok;
        {error, exists} -> same(ejabberd_auth:get_password(User, Host), Password);
        _ -> error
    end.
same(Password, Password) -> ok;
same(_, _) -> error.

written(#scram{hash = Hash, iterationcount = Count, salt = Salt, storedkey = Stored, serverkey = Server}) ->
    iolist_to_binary(lists:join($:, [atom_to_binary(Hash, utf8), integer_to_binary(Count), Salt, Stored, Server]));
written(Plain) when is_binary(Plain) -> <<"plain:", (base64:encode(Plain))/binary>>;
written(_) -> <<>>. %% another server checks the passwords of this host

read([<<"plain">>, Text]) -> base64:decode(Text);
read([Hash, Count, Salt, Stored, Server]) ->
    #scram{hash = binary_to_existing_atom(Hash, utf8), iterationcount = binary_to_integer(Count), salt = Salt,
           storedkey = Stored, serverkey = Server}.
