"""This device, its disk and its daemon, as updates need them: the ports of ``agent.update``."""
