{
  description = "postmerge: a mailbox that lives on many machines at once and never lies to a mail client";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
      forEach = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
      version = (builtins.fromTOML (builtins.readFile ./Cargo.toml)).workspace.package.version;
    in
    {
      packages = forEach (pkgs: {
        default = pkgs.rustPlatform.buildRustPackage {
          pname = "postmerge";
          inherit version;
          src = self;
          cargoLock.lockFile = ./Cargo.lock;
          cargoBuildFlags = [ "--package" "postmerge-cli" ];
          # A second full build; run `cargo test` in the development shell instead.
          doCheck = false;
          meta = {
            description = "A mailbox that lives on many machines at once and never lies to a mail client";
            license = with pkgs.lib.licenses; [ mit asl20 ];
            mainProgram = "postmerge";
          };
        };
      });

      devShells = forEach (pkgs: {
        default = pkgs.mkShell {
          packages = with pkgs; [ cargo rustc rustfmt clippy rust-analyzer cargo-deny ];
        };
      });
    };
}
