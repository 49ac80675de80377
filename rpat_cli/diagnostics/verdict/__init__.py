"""Can the accuracies be believed?"""
