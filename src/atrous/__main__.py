from atrous.cli import main

main()
