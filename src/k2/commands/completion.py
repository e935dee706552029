"""`k2 completion`: what makes a shell complete verbs, options and their values."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell: bash (4.4 or newer), zsh or fish.

    \b
    For this terminal only:
      source <(k2 completion bash)
      source <(k2 completion zsh)
      k2 completion fish | source
    \b
    For good (then open a new terminal):
      k2 completion bash > ~/.local/share/bash-completion/completions/k2
      k2 completion zsh > ~/.zfunc/_k2      with fpath+=~/.zfunc before compinit in ~/.zshrc
      k2 completion fish > ~/.config/fish/completions/k2.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(ctx.find_root().command, {}, "k2", "_K2_COMPLETE").source()
    click.echo(script.strip())
